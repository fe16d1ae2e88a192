"""A folder for PYTHONPATH: its sitecustomize switches the drop-in on in every Python that is started. See cheetah_http.dbslm.run."""
