# gp_add_plugin(name sources..)
# A plugin, name.so, from C11 or C++17 sources. Inside this project it goes to ${GP_PLUGIN_DIR}; in
# other projects set LIBRARY_OUTPUT_DIRECTORY, or install it.
function(gp_add_plugin name)
  add_library(${name} MODULE ${ARGN})
  if(TARGET gp_plugin_sdk)
    target_link_libraries(${name} PRIVATE gp_plugin_sdk)
  else()
    target_link_libraries(${name} PRIVATE GanPipeline::gp_plugin_sdk)
  endif()
  target_compile_features(${name} PRIVATE c_std_11 cxx_std_17)
  # Nothing but the entry leaves the plugin, so that plugins cannot disturb each other.
  set_target_properties(${name} PROPERTIES PREFIX "" SUFFIX ".so" C_VISIBILITY_PRESET hidden
                                           CXX_VISIBILITY_PRESET hidden
                                           VISIBILITY_INLINES_HIDDEN ON)
  if(GP_PLUGIN_DIR)
    set_target_properties(${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${GP_PLUGIN_DIR})
  endif()
  # A missing library shows when the plugin is linked rather than when it is loaded. (The
  # sanitizers' own symbols come with the program.)
  if(NOT GP_SANITIZE)
    target_link_options(${name} PRIVATE LINKER:-z,defs)
  endif()
endfunction()
