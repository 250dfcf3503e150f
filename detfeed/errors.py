"""Exceptions of detfeed.

Each takes one message and nothing else, so that it survives pickling on its way out of a worker process.
"""


class DetfeedError(Exception):
    """Base of all errors that detfeed raises on purpose."""


class AnnotationError(DetfeedError, ValueError):
    """A file or table of annotations or proposals is not what it should be; gives file, place, expected and got."""


class MissingImageError(AnnotationError):
    """An annotation, or a file of them, has no image that goes with it."""


class RepeatedImageError(AnnotationError):
    """A list of images names one again."""


class ImageError(DetfeedError, ValueError):
    """An image file is missing, unreadable, or not of the annotated size."""


class SampleError(DetfeedError, RuntimeError):
    """Something failed while a sample of a batch was made; the message names image, position, epoch and batch."""


class WorkerError(DetfeedError, RuntimeError):
    """Workers died of a batch, or hung, again and again; the message names its images."""
