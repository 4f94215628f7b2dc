"""From checked inputs to a video and its contact sheet: what the command and the server have in common."""

LONGEST_SIDE = 4096  # pixels; no player shows more
SHEET_NOTE = "Contact sheet of a video made with SkyReels-Audio"
