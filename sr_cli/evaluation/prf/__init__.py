"""The Perceptual Recoverable Field of Diff-SR: searched, kept, told and drawn."""
