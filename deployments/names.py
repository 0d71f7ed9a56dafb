"""Names that deployments know each other by."""


def generator_name(variant: str) -> str:
    """The deployment that generates this variant's clips."""
    return f"generator-{variant}"
