"""Where does a browser leave PyTorch?  A bundle whose graph shows what is inside it.

``exporter.diagnose.bisect.diagnose`` is the way in.
"""
