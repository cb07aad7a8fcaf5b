"""ActiveKD and PCoreSet, to see and to use: a vision-language model teaches a small student, and
active learning chooses which images a person labels next.

The names are in `__init__.pyi`; each is imported when it is first used.
"""

import lazy_loader

from activekd_lite.utils import openmp

openmp.spin_briefly()  # before torch is imported, whose OpenMP reads it then

__version__ = "0.2.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
