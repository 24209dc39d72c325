// folder:DIR: image files (data/image_file.h), one folder a class.
//
//   DIR/train/CLASS/…   training images: files ending in .png, .jpg or .jpeg, in any case
//   DIR/test/CLASS/…    test images, of the training's classes; may be missing
//   DIR/CLASS/…         training images, where DIR is not split so
//   DIR/train/…, DIR/…  images in no class folder: without labels, and then without a test
//
// Classes are sorted by name, byte by byte, and numbered from 0; so are the files of each. Names
// that begin with a dot, other files, and folders within a class are passed over; symbolic links
// are followed. A class of the training without a file is an error, and so are images beside
// class folders. A DIR whose train/ holds only images and which has other folders is taken for
// unsplit, train being one of its classes.
//
// Of an image the largest centred square is resized to image_size × image_size, with the filter of
// the augmentation (Backend::augment). mean and std are ImageNet's, so that features of an encoder
// mean the same in every folder. Files are decoded by several threads; the first bad one in the
// order above is the one that is reported.
#pragma once

#include "data/dataset.h"

namespace mocograd {

// Throws Error naming the folder, or the file and the offset in it.
DataSet open_image_folder(const std::string& directory, int64_t image_size,
                          const DecodeOptions& options);

}  // namespace mocograd
