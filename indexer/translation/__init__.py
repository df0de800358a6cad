"""Herbarium sheets drawn anew as synthetic field photos, for species that nobody has photographed.

CUT (Park et al. 2020, "Contrastive Learning for Unpaired Image-to-Image Translation"): a generator learns from sheets
and photos that show different plants to draw what a discriminator takes for a photo, while each patch of the drawing
stays recognisable as that patch of the sheet.
"""
