// Boost.URL's own code, compiled once for the program.
#include <boost/url/src.hpp>
