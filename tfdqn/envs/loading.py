import importlib


def make(factory, arguments):
    if not callable(factory):
        m, c = factory.split(":")
        factory = getattr(importlib.import_module(m), c)
    return factory(**arguments)
