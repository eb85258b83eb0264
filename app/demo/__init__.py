"""`burnish demo`: the whole loop on the embedded model, with a scripted user for a person."""

from typing import Literal

EvidenceName = Literal["mixed", "thumbs", "comparisons"]  # what the user gives
