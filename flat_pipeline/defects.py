"""TEMP."""
from dataclasses import dataclass
import numpy as np
@dataclass
class J:
    dq: object
    prnu: float=0.
    prnu_error: float=0.
    def counts(self): return {}
    def cards(self): return {}
def judge_pixels(flat, sigma, noisy):
    return J(np.zeros(flat.shape, np.int16))
