"""Everything with parameters, behind the Denoiser and Codec protocols."""
