"""An index to files: COCO, VOC, YOLO. Each writer says what its format cannot hold."""
