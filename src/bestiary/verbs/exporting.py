"""A trained model as a graph that other runtimes run."""


def export() -> None:
    """Placeholder until the deployment floor is in."""
    raise NotImplementedError
