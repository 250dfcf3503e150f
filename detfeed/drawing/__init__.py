"""Drawing: pictures as arrays and PNG files, from arrays alone; knows no data set and reads no image."""
