"""What DICOM bytes mean. Plain Python; pydicom serves as dictionary and codec and never parses bytes."""
