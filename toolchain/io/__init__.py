"""Files and bytes: hashing, base64, strict JSON, bulk and atomic writes, events between processes."""
