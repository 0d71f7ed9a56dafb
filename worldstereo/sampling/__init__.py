"""From conditions to frames: encoders, VAE, schedules, the denoising loop, the pipeline."""
