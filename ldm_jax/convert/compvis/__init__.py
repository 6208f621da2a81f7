"""CompVis' single files: what their keys and shapes say, read and written."""
