// Unpacking the archive of a data set, by libarchive.
#pragma once

#include <string>

namespace mocograd {

// Writes the files of a .tar.gz into `folder`, without the one folder that they may lie in. Throws
// Error for an archive that is damaged, or holds anything but folders and such files: a path that is
// absolute, deeper or has "..", a link, a device, a name twice. Files are durable when it returns.
void unpack_tar_gz(const std::string& archive, const std::string& folder);

}  // namespace mocograd
