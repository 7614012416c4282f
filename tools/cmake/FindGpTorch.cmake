# Finds libtorch and defines the one target that stages/torch and its tests link:
#
#   GpTorch::torch       libtorch_cpu.so + libc10.so, their headers (SYSTEM) and C++20
#   GpTorch_VERSION      e.g. 2.15.0
#   GpTorch_LIBRARY_DIR  the folder of libtorch_cpu.so
#
# Looks in Torch_ROOT (cache variable or environment), which has the layout of the official libtorch archive and of pip's
# site-packages/torch: include/, lib/, share/. Without Torch_ROOT: the folder that tools/bootstrap fills.
#
# PyTorch's own TorchConfig.cmake is not used: for a CUDA build it demands a CUDA toolkit with nvcc, and it links libtorch.so,
# which pulls in libtorch_cuda.so and gigabytes of CUDA libraries. We link the CPU half only. libtorch_cuda.so registers itself
# when it is opened, so a program that wants a GPU calls dlopen("libtorch_cuda.so"): the run path that our binaries get from this
# target makes the bare name enough, in the build tree and installed.

set(_gp_pins ${CMAKE_CURRENT_LIST_DIR}/../deps/torch_cpu.txt)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${_gp_pins})
file(STRINGS ${_gp_pins} _gp_pin REGEX "^torch==")
string(REGEX REPLACE "^torch==([0-9.]+).*" "\\1" _gp_pin "${_gp_pin}")

# Kept in the cache, or the next automatic re-configure, from a shell without the variable, would change libraries.
set(Torch_ROOT "$ENV{Torch_ROOT}" CACHE PATH "Your own libtorch; empty: the one of tools/bootstrap")
if(Torch_ROOT)
  set(_gp_root ${Torch_ROOT})
  set(_gp_hint "Torch_ROOT must name a folder with include/ and lib/ in it: the unpacked libtorch archive of pytorch.org, or\
 site-packages/torch of a pip installation.\nUnset it (cmake -UTorch_ROOT ..) to use the one that tools/bootstrap installs.")
else()
  if(DEFINED ENV{GP_DEPS_DIR})
    set(_gp_deps "$ENV{GP_DEPS_DIR}")
  else()
    get_filename_component(_gp_deps ${CMAKE_CURRENT_LIST_DIR}/../../.deps ABSOLUTE)
  endif()
  set(_gp_root ${_gp_deps}/pytorch-${_gp_pin}/torch)
  set(_gp_hint "Do one of these:\n  - run tools/bootstrap, which downloads the pinned libtorch ${_gp_pin}\n  - pass your own:\
 -DTorch_ROOT=/path/to/libtorch\n  - build without training and evaluation: -DGP_TORCH=OFF")
endif()

# NO_CACHE: a changed Torch_ROOT or pin takes effect at once, never half of it.
find_path(GpTorch_INCLUDE_DIR torch/csrc/api/include/torch/torch.h NO_CACHE
          PATHS ${_gp_root}/include NO_DEFAULT_PATH)
find_library(GpTorch_LIBRARY torch_cpu NO_CACHE PATHS ${_gp_root}/lib NO_DEFAULT_PATH)
find_library(GpTorch_C10_LIBRARY c10 NO_CACHE PATHS ${_gp_root}/lib NO_DEFAULT_PATH)

unset(GpTorch_VERSION)
foreach(_gp_header torch/headeronly/version.h torch/csrc/api/include/torch/version.h) # newer and older place
  if(GpTorch_INCLUDE_DIR AND NOT GpTorch_VERSION AND EXISTS ${GpTorch_INCLUDE_DIR}/${_gp_header})
    file(STRINGS ${GpTorch_INCLUDE_DIR}/${_gp_header} _gp_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) +[0-9]+")
    string(REGEX MATCHALL "[0-9]+" _gp_numbers "${_gp_lines}")
    list(JOIN _gp_numbers "." GpTorch_VERSION)
  endif()
endforeach()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  GpTorch
  REQUIRED_VARS GpTorch_LIBRARY GpTorch_C10_LIBRARY GpTorch_INCLUDE_DIR
  VERSION_VAR GpTorch_VERSION
  REASON_FAILURE_MESSAGE "\nlibtorch was not found in ${_gp_root}\n${_gp_hint}\n")

if(GpTorch_FOUND)
  # Archives before 2.7 came in two kinds. One with the old std::string can't be linked with OpenCV or yaml-cpp of this system.
  if(EXISTS ${_gp_root}/share/cmake/Torch/TorchConfig.cmake)
    file(STRINGS ${_gp_root}/share/cmake/Torch/TorchConfig.cmake _gp_old_abi REGEX "_GLIBCXX_USE_CXX11_ABI=0")
    if(_gp_old_abi)
      message(FATAL_ERROR "${_gp_root} was built with _GLIBCXX_USE_CXX11_ABI=0, this system's C++ libraries with 1. "
                          "Take the archive whose name has \"cxx11-abi\", or libtorch 2.7 or newer.")
    endif()
  endif()
  get_filename_component(GpTorch_LIBRARY_DIR ${GpTorch_LIBRARY} DIRECTORY)
  # libtorch_cpu.so finds its own neighbours through its RPATH, which ld reads too where it understands $ORIGIN; -rpath-link
  # says it to those linkers that don't. (The pip layout keeps CUDA's libraries beside torch/.)
  file(GLOB _gp_link_dirs LIST_DIRECTORIES true ${_gp_root}/../nvidia/*/lib)
  list(TRANSFORM _gp_link_dirs PREPEND "LINKER:-rpath-link,")
  if(NOT TARGET GpTorch::torch)
    # GLOBAL: tests in other folders link our static libraries, which carry this target along.
    add_library(GpTorch::c10 SHARED IMPORTED GLOBAL)
    set_target_properties(GpTorch::c10 PROPERTIES IMPORTED_LOCATION ${GpTorch_C10_LIBRARY})
    add_library(GpTorch::torch SHARED IMPORTED GLOBAL)
    set_target_properties(
      GpTorch::torch
      PROPERTIES IMPORTED_LOCATION ${GpTorch_LIBRARY}
                 INTERFACE_INCLUDE_DIRECTORIES
                 "${GpTorch_INCLUDE_DIR};${GpTorch_INCLUDE_DIR}/torch/csrc/api/include"
                 INTERFACE_COMPILE_FEATURES cxx_std_20
                 INTERFACE_COMPILE_DEFINITIONS _GLIBCXX_USE_CXX11_ABI=1
                 INTERFACE_LINK_OPTIONS "${_gp_link_dirs}"
                 INTERFACE_LINK_LIBRARIES GpTorch::c10)
    # at::parallel_for is a template that runs on one thread in code compiled without OpenMP. The run time must be libtorch's
    # own, of which it brings a copy, or there would be two pools of threads.
    file(GLOB _gp_openmp ${_gp_root}/lib/libgomp*.so*)
    target_compile_options(GpTorch::torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
    if(_gp_openmp)
      list(GET _gp_openmp 0 _gp_openmp)
      add_library(GpTorch::openmp SHARED IMPORTED GLOBAL)
      set_target_properties(GpTorch::openmp PROPERTIES IMPORTED_LOCATION ${_gp_openmp})
      target_link_libraries(GpTorch::torch INTERFACE GpTorch::openmp)
    else()
      target_link_libraries(GpTorch::torch INTERFACE gomp)
    endif()
  endif()
  # Installed targets of the calling folder keep the path of libtorch in their run path (those of the build tree always do).
  set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)
endif()
mark_as_advanced(GpTorch_INCLUDE_DIR GpTorch_LIBRARY GpTorch_C10_LIBRARY)
