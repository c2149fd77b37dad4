"""What the screens say, as lines and cells: pure functions of a frame."""
