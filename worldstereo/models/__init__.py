"""The diffusion transformers, their ControlNet, and how checkpoints become them."""
