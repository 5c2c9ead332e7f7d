"""The 375 radiomic features of COVID-MTL: names, order, and how they are computed.

Names and order are those of the published table (spec covid_mtl §7.3). The feature classes are
those of PyRadiomics; features of the original image carry no class in their names, and three that
two classes have hold the values of the later one.
"""

from __future__ import annotations

BIN_WIDTH = 25
"""Width of the bins that stored values are put into before textures are counted."""

WAVELET = "coif1"
"""Wavelet of the undecimated transform, one level, periodic."""

WAVELET_MARGIN = 8
"""Zeros around the box of the lungs that make its wavelet bands those of the whole volume."""

SCALED_LIMITS = (-0.5, 1.5)
"""Scaled features are clipped to these limits; the published cases lie in 0…1."""

FIRST_ORDER = (
    "10Percentile", "90Percentile", "Energy", "Entropy", "InterquartileRange", "Kurtosis",
    "Maximum", "MeanAbsoluteDeviation", "Mean", "Median", "Minimum", "Range",
    "RobustMeanAbsoluteDeviation", "RootMeanSquared", "Skewness", "TotalEnergy", "Uniformity",
    "Variance",
)  # fmt: skip

GLCM = (
    "Autocorrelation", "ClusterProminence", "ClusterShade", "ClusterTendency", "Contrast",
    "Correlation", "DifferenceAverage", "DifferenceEntropy", "DifferenceVariance", "Id", "Idm",
    "Idmn", "Idn", "Imc1", "Imc2", "InverseVariance", "JointAverage", "JointEnergy",
    "JointEntropy", "MCC", "MaximumProbability", "SumAverage", "SumEntropy", "SumSquares",
)  # fmt: skip
"""Grey-level co-occurrence."""

GLRLM = (
    "GrayLevelNonUniformity", "GrayLevelNonUniformityNormalized", "GrayLevelVariance",
    "HighGrayLevelRunEmphasis", "LongRunEmphasis", "LongRunHighGrayLevelEmphasis",
    "LongRunLowGrayLevelEmphasis", "LowGrayLevelRunEmphasis", "RunEntropy",
    "RunLengthNonUniformity", "RunLengthNonUniformityNormalized", "RunPercentage", "RunVariance",
    "ShortRunEmphasis", "ShortRunHighGrayLevelEmphasis", "ShortRunLowGrayLevelEmphasis",
)  # fmt: skip
"""Grey-level run lengths."""

OVERWRITTEN = GLRLM[:3]
"""Features of two classes: the column stands among the run lengths and holds the zones' value."""

GLSZM = (
    "HighGrayLevelZoneEmphasis", "LargeAreaEmphasis", "LargeAreaHighGrayLevelEmphasis",
    "LargeAreaLowGrayLevelEmphasis", "LowGrayLevelZoneEmphasis", "SizeZoneNonUniformity",
    "SizeZoneNonUniformityNormalized", "SmallAreaEmphasis", "SmallAreaHighGrayLevelEmphasis",
    "SmallAreaLowGrayLevelEmphasis", "ZoneEntropy", "ZonePercentage", "ZoneVariance",
)  # fmt: skip
"""Grey-level size zones, without `OVERWRITTEN`."""

WAVELET_GLCM = (
    "Autocorrelation", "JointAverage", "ClusterProminence", "ClusterShade", "ClusterTendency",
    "Contrast", "Correlation", "DifferenceAverage", "DifferenceEntropy", "DifferenceVariance",
    "JointEnergy", "JointEntropy", "Imc1", "Imc2", "Idm", "Idmn", "Id", "Idn", "InverseVariance",
    "MaximumProbability", "SumEntropy", "SumSquares",
)  # fmt: skip
"""The co-occurrence features of the wavelet bands, in their own order."""

BANDS = ("LLH", "LHL", "LHH", "HLL", "HLH", "HHL", "HHH", "LLL")
"""Wavelet bands; the letters are low or high along columns, rows, slices."""

FEATURES = (
    *FIRST_ORDER,
    *GLCM,
    *GLRLM,
    *GLSZM,
    *(f"{band}_glcm_{name}" for band in BANDS for name in WAVELET_GLCM),
    *(f"{band}_glrlm_{name}" for band in BANDS for name in GLRLM),
)
"""Every feature in the published order."""
