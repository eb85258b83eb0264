"""The layout and computation of batches: no padding, shared prompts, the head where it counts.

trl's trainers keep their arguments, losses and logs; only the tensors they compute on change.
"""
