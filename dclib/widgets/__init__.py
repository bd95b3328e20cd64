"""What is clicked in the notebooks, with ipywidgets 7.7.1 (Colab) or 8.

photo       photo_panel: show it a picture, read the answer
strength    strength_panel: how strongly to augment
explain     hide_panel, neuron_panel: hide regions, choose neurons
live        live_panel: the camera
uploads     files in and out of a page; browser: the few lines that run there
"""
