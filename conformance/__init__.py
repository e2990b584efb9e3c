"""The tag engine held against other readers over any folder of DICOM files."""
