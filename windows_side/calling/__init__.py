"""A call of a model, whichever runtime runs it: classes of its values, checks of its sizes. Imports no torch."""
