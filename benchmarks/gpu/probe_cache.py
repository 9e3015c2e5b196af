import sys, time, os
t0 = time.perf_counter()
import torch
t1 = time.perf_counter()
from pathlib import Path
from windows_side import load
from windows_side.golden import read_golden
from toolchain import open_artifact
from torch.utils import _pytree as pytree
path, cache = sys.argv[1], Path(sys.argv[2])
torch.cuda.init(); torch.zeros(1, device="cuda"); 
t2 = time.perf_counter()
model = load(path, allow_unlisted_gpu=True)
t3 = time.perf_counter()
handle = torch.classes.tensorrt.RuntimeCacheHandle("")
if cache.exists(): handle.deserialize(torch.frombuffer(bytearray(cache.read_bytes()), dtype=torch.uint8))
for c in model.program.constants.values():
    if isinstance(c, torch.ScriptObject): c.update_runtime_settings(0, 0, handle)
o = open_artifact(path); leaves, _ = read_golden(o)[0]
args, kw = pytree.tree_unflatten([l.cuda() for l in leaves], pytree.treespec_loads(o.manifest.call.in_spec))
t4 = time.perf_counter()
model(*args, **kw); torch.cuda.synchronize()
t5 = time.perf_counter()
model(*args, **kw); torch.cuda.synchronize()
t6 = time.perf_counter()
blob = bytes(handle.serialize().numpy())
t7 = time.perf_counter()
print("CACHE", Path(path).name, "warm" if cache.exists() else "cold", f"import {t1-t0:.2f} cuda {t2-t1:.2f} load {t3-t2:.2f} first {t5-t4:.3f} second {t6-t5:.4f} serialize {t7-t6:.3f} bytes {len(blob)}", flush=True)
cache.write_bytes(blob)
