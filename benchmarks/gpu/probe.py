"""Throwaway probe."""
import json, os, statistics, sys, time
from pathlib import Path
import torch
from toolchain import open_artifact
from toolchain.convert import convert_artifact
from toolchain.targets import Platform
from windows_side import load
from windows_side.golden import read_golden
from torch.utils import _pytree as pytree
import tensorrt_rtx as trt

def timed(fn, n=100):
    """GPU time of n calls back to back per call (ms) and CPU time per call."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record(); t = time.perf_counter()
    for _ in range(n): fn()
    cpu = (time.perf_counter() - t) / n * 1e3
    end.record(); torch.cuda.synchronize()
    return start.elapsed_time(end) / n, cpu

def single(fn, n=50):
    out = []
    for _ in range(n):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(); start.record(); fn(); end.record(); end.synchronize()
        out.append(start.elapsed_time(end))
    return statistics.median(out)

logger = trt.Logger(trt.Logger.ERROR)
runtime = trt.Runtime(logger)
for path in map(Path, sys.argv[1:]):
    out = Path("/tmp/conv") / path.name; out.parent.mkdir(exist_ok=True)
    with open_artifact(path) as a: convert_artifact(a, out, Platform.LINUX_X86_64)
    t = time.perf_counter(); model = load(out, allow_unlisted_gpu=True); loaded = time.perf_counter() - t
    opened = open_artifact(out)
    leaves, _ = read_golden(opened)[0]
    spec = pytree.treespec_loads(opened.manifest.call.in_spec)
    for batch in (1, 8):
        cur = []
        ok = True
        for leaf, s in zip(leaves, opened.manifest.inputs):
            x = leaf.cuda()
            if x.shape[0] != batch:
                if isinstance(s.shape[0], int): ok = False
                x = x[:1].repeat(batch, *[1] * (x.dim() - 1))
            cur.append(x)
        if not ok: continue
        args, kwargs = pytree.tree_unflatten(cur, spec)
        t = time.perf_counter(); model(*args, **kwargs); torch.cuda.synchronize(); first = time.perf_counter() - t
        engine = [c for c in model.program.constants.values() if isinstance(c, torch.ScriptObject)]
        fns = {"model": lambda: model(*args, **kwargs), "flat": lambda: model._flat(*cur)}
        if len(engine) == 1:
            info = opened.engines[0].info
            # raw
            eng = runtime.deserialize_cuda_engine(opened.engines[0].read())
            cfg = eng.create_runtime_config()
            if len(sys.argv) and os.environ.get("EAGER"): cfg.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            ctx = eng.create_execution_context(cfg)
            with torch.no_grad():
                # inputs of the engine: capture by running flat with hook
                seen = {}
                class I(torch.fx.Interpreter):
                    def call_function(self, target, a, k):
                        if "execute_engine" in str(target): seen["in"] = a[0]
                        return super().call_function(target, a, k)
                I(model._flat).run(*cur, enable_io_processing=False)
            ins = [x.contiguous() for x in seen["in"]]
            if eng.num_optimization_profiles > 1: ctx.set_optimization_profile_async(0 if batch == 1 else 1, torch.cuda.current_stream().cuda_stream)
            for name, x in zip(info.input_names, ins):
                ctx.set_input_shape(name, tuple(x.shape)); ctx.set_tensor_address(name, x.data_ptr())
            outs = []
            for name in info.output_names:
                o = torch.empty(tuple(ctx.get_tensor_shape(name)), dtype={trt.float32: torch.float32, trt.float16: torch.float16, trt.bfloat16: torch.bfloat16}[eng.get_tensor_dtype(name)], device="cuda")
                ctx.set_tensor_address(name, o.data_ptr()); outs.append(o)
            side = torch.cuda.Stream()
            fns["execute_engine"] = lambda: torch.ops.tensorrt.execute_engine(ins, engine[0])
            def raw():
                ctx.execute_async_v3(torch.cuda.current_stream().cuda_stream)
            fns["raw"] = raw
        for f in fns.values():
            for _ in range(10): f()
        torch.cuda.synchronize()
        time.sleep(1 if batch == 1 else 3)
        rec = {"model": path.stem, "batch": batch, "load_s": round(loaded, 2), "first_s": round(first, 2)}
        for stream_name in ("default", "side"):
            s = torch.cuda.default_stream() if stream_name == "default" else torch.cuda.Stream()
            with torch.cuda.stream(s):
                for f in fns.values():
                    for _ in range(5): f()
                for rnd in range(3):
                    for name, f in fns.items():
                        g, c = timed(f)
                        k = f"{name}@{stream_name}"
                        if k not in rec or g < rec[k][0]: rec[k] = (round(g, 4), round(c, 4), round(single(f), 4))
        try:
            g = torch.cuda.CUDAGraph()
            s = torch.cuda.Stream()
            with torch.cuda.stream(s):
                for _ in range(3): fns["model"]()
            torch.cuda.synchronize()
            with torch.no_grad(), torch.cuda.graph(g, stream=s): model._flat(*cur)
            rec["graph"] = (*[round(x, 4) for x in timed(g.replay)], round(single(g.replay), 4))
            if len(engine) == 1:
                g2 = torch.cuda.CUDAGraph()
                with torch.cuda.graph(g2, stream=s): raw()
                rec["rawgraph"] = (*[round(x, 4) for x in timed(g2.replay)], round(single(g2.replay), 4))
        except Exception as e:
            rec["graph_error"] = repr(e)[:300]
        print("PROBE", json.dumps(rec), flush=True)
    del model
