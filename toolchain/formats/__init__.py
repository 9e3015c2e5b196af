"""An artifact's engines for other runtimes: an ONNX model or a folder of plain engines, written and verified."""
