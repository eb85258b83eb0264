"""What the model is: where its weights come from and what they are called."""
