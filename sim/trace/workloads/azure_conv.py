"""azure-conv-like: chat of the Azure LLM inference trace 2023.

Shaped like `AzureLLMInferenceTrace_conv.csv` (Microsoft, CC BY 4.0), published with Splitwise
(Patel et al., ISCA 2024): 19,366 requests in 3,501.72 s. Measured on the file itself.
"""

from __future__ import annotations

from sim.trace.gaps import gamma_gaps, minute_profile
from sim.trace.lengths import knots_of

from .arrivals import Renewal
from .open_loop import Recipe

NAME = "azure-conv-like"

# Model: within a minute of the rate profile gaps are gamma with this shape; with the profile it
# gives the trace's gap CV (1.09) and its index of dispersion at 1, 10 and 60 s.
_SHAPE = 0.9
_RATE_PER_S = 5.53014

# Tables of lengths: the share of requests with fewer tokens than the edge, linear in between. The
# edges were chosen one by one where the straight line was furthest from the trace, until nowhere
# more than 0.005 was left, plus five in the tail for the mean.
# fmt: off
# requests in each of the 58 whole minutes
_PER_MINUTE = (
    191, 265, 329, 353, 307, 273, 268, 261, 322, 298, 301, 302, 345, 326, 283, 279, 280, 308, 343,
    351, 351, 343, 408, 396, 386, 398, 432, 480, 476, 453, 448, 507, 438, 413, 423, 418, 465, 311,
    329, 316, 333, 355, 319, 360, 334, 375, 330, 249, 221, 249, 265, 280, 256, 254, 242, 260, 246,
    225,
)
_PROMPT = (
    (2, 0.0), (181, 0.03573), (182, 0.05737), (194, 0.06134), (200, 0.07126), (204, 0.09062),
    (213, 0.11231), (244, 0.13178), (370, 0.1452), (391, 0.21342), (405, 0.30894), (411, 0.33931),
    (423, 0.3676), (443, 0.38619), (489, 0.39404), (862, 0.40979), (977, 0.44284), (1009, 0.47904),
    (1102, 0.65873), (1141, 0.71295), (1172, 0.74042), (1202, 0.7556), (1312, 0.78018),
    (1317, 0.80393), (1323, 0.81039), (1370, 0.82015), (1550, 0.8327), (2767, 0.90163),
    (4069, 0.91686), (4074, 0.92007), (4090, 0.9699), (4099, 0.98079), (4143, 0.99003),
    (4832, 0.99504), (5653, 0.99804), (6446, 0.99933), (14051, 1.0),
)
_OUTPUT = (
    (7, 0.0), (12, 0.00036), (18, 0.01141), (19, 0.01942), (35, 0.03284), (45, 0.06021),
    (66, 0.14402), (80, 0.21197), (86, 0.25385), (96, 0.34592), (102, 0.39167), (112, 0.44459),
    (139, 0.52499), (161, 0.5677), (168, 0.5882), (184, 0.61458), (217, 0.64009), (218, 0.65439),
    (219, 0.65486), (373, 0.67123), (393, 0.72839), (396, 0.75405), (397, 0.776), (398, 0.78576),
    (402, 0.80889), (411, 0.84106), (416, 0.87494), (427, 0.90587), (430, 0.92409), (447, 0.94578),
    (469, 0.96029), (541, 0.98007), (602, 0.99009), (645, 0.99504), (919, 0.99804), (993, 0.99943),
    (1001, 1.0),
)
# fmt: on


def recipe(seed: int) -> Recipe:
    """Lengths are independent of each other (rank correlation 0.07 in the file) and of time."""
    warp = minute_profile(_PER_MINUTE, _RATE_PER_S)
    arrivals = Renewal(seed, NAME, gamma_gaps(_SHAPE, 1.0), warp)
    return Recipe(arrivals, knots_of(_PROMPT), knots_of(_OUTPUT))
