"""lm-evaluation-harness on a bundle in a browser: an extra, ``pip install tabwright[eval]``.

lm_eval 0.4.13 looks for models in a table of its own and nowhere else, so that
``tabwright lm-eval`` adds ours to it and hands over.  ``commands.py`` is that command;
``model.py`` is the model; ``browser.py`` is what it drives.
"""
