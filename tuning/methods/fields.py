"""Types of the recipe's fields that several methods have, with what each does as annotation."""

from __future__ import annotations

from typing import Annotated

Epochs = Annotated[float, "times that all examples are read; 0 leaves this out"]
LearningRate = Annotated[float, "how far a step moves the weights"]
BatchSize = Annotated[int, "examples in a step"]
Beta = Annotated[float, "how strongly drift from the model before is held back"]
