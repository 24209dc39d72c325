// The built-in data set: ten classes of shape, generated, so that the program runs with no
// download.
//
// Each picture shows one shape in a random colour, place, size, turn and texture before a
// background of another colour with a texture of its own. Colours are pale and textures faint, so
// that two views have to be matched by more than them. Nothing but the outline tells the class:
// k-nearest-neighbour classification of raw pixels stays under 50 %, of mean colours under 20 %
// (tests/shapes_test.cpp), while a network that is trained with the labels passes 99 %.
//
// A picture is a function of (split, index) alone, and image i is of class i mod 10. It is made
// with + − × ÷ √ only, which every machine rounds alike: all machines draw the same pixels.
#pragma once

#include "data/dataset.h"

namespace mocograd {

constexpr int64_t kShapesTrainImages = 10000;
constexpr int64_t kShapesTestImages = 2000;

// All images, image_size × image_size.
DataSet generate_shapes(int64_t image_size);

// Is the point inside of the shape of that class? The shapes lie upright within the unit circle, y
// pointing down. For drawing, and for tests.
bool inside_shape(int64_t label, double x, double y);

}  // namespace mocograd
