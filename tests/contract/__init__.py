"""What we believe of Torch-TensorRT, held against the wheels that it ships: nothing of it is imported here."""
