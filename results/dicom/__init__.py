"""Results as DICOM objects: segmentations, structured report, window, enhanced series, pictures.

Needs the extra ``dicom`` (highdicom). What a system has to say is a `content.Content`;
`writer.write_objects` makes the objects of it. The objects follow IHE's AI Results profile.
"""
