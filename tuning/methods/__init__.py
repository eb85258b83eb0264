"""Training methods, a file each: the recipe's section, its rules, the rows and the trainer.

To add one, write a file with a `Method` (`base.py`) and give `tuning.recipe.Recipe` a field of it.
The order of the fields is the order in which stages run; `tuning.recipe.METHODS` is the mapping.
"""
