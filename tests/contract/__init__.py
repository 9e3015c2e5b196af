"""What we believe of Torch-TensorRT, compared with the wheels that it ships: nothing of it is imported here."""
