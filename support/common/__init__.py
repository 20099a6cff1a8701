"""What both wings stand on: argument checks, paths, files, the cache and its keys, progress bars.
It imports nothing else of the package."""
