"""Guards of a program: found in what torch keeps, said in our grammar, and as few as say the same."""
