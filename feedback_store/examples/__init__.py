"""The rules by which evidence becomes training examples. Pure: values in, values out."""
