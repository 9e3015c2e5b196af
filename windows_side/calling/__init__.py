"""What every runtime needs for a call: classes of values, rules for inputs, files of tensors. Imports no torch."""
