"""Knowledge distillation from a multimodal teacher to a small student: data, networks, methods, training."""

__version__ = "0.1.0"
