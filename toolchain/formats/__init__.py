"""An artifact's engines for other runtimes: an ONNX model, a folder of plain engines; and what proves that they are."""
