# Used by this project and, installed, by find_package(GanPipeline).

# gp_add_plugin(name sources..)
# A plugin, name.so, from C11 or C++17 sources. Inside this project it goes to ${GP_PLUGIN_DIR}; in
# other projects set LIBRARY_OUTPUT_DIRECTORY, or install it.
function(gp_add_plugin name)
  add_library(${name} MODULE ${ARGN})
  target_link_libraries(${name} PRIVATE GanPipeline::gp_plugin_sdk)
  get_property(languages GLOBAL PROPERTY ENABLED_LANGUAGES)
  if(C IN_LIST languages)
    target_compile_features(${name} PRIVATE c_std_11)
  endif()
  if(CXX IN_LIST languages)
    target_compile_features(${name} PRIVATE cxx_std_17)
  endif()
  # Nothing but the entry leaves the plugin, so that plugins cannot disturb each other.
  set_target_properties(${name} PROPERTIES C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden
                                           VISIBILITY_INLINES_HIDDEN ON)
  _gp_shared_object(${name} "${GP_PLUGIN_DIR}")
endfunction()

# gp_add_stage_module(name sources..)
# A C++ stage module, name.so: GP_STAGE_MODULE of pipeline/module.hpp, built with the compiler that
# gan-pipeline was built with. The YAML names the file: modules: [./build/name.so].
function(gp_add_stage_module name)
  add_library(${name} MODULE ${ARGN})
  target_link_libraries(${name} PRIVATE GanPipeline::gp_pipeline)
  _gp_shared_object(${name} "")
endfunction()

function(_gp_shared_object name folder)
  set_target_properties(${name} PROPERTIES PREFIX "" SUFFIX ".so")
  if(folder)
    set_target_properties(${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${folder})
  endif()
  # A missing library shows when it is linked rather than when it is loaded. (The sanitizers' own
  # symbols come with the program.)
  if(NOT GP_SANITIZE)
    target_link_options(${name} PRIVATE LINKER:-z,defs)
  endif()
endfunction()
