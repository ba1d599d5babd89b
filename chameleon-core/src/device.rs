//! Devices by name: the only place in the workspace's libraries that depends on the compiled backends.
//!
//! A backend is a cargo feature of the same name. Several may be compiled together;
//! [`DeviceSpec`] picks one at run time.

use std::{fmt, str::FromStr};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// A supported tensor backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BackendKind {
    /// Burn's pure-Rust CPU backend, the default.
    Flex,
    /// The older CPU backend on the `ndarray` crate.
    NdArray,
    /// WebGPU through `wgpu` with WGSL shaders.
    Wgpu,
    /// `wgpu` on Vulkan with SPIR-V shaders.
    Vulkan,
    /// `wgpu` on Metal.
    Metal,
    /// NVIDIA GPUs through CUDA.
    Cuda,
    /// AMD GPUs through HIP.
    Rocm,
    /// `PyTorch`'s C++ library.
    Tch,
}

impl BackendKind {
    /// Every backend, compiled in or not, the preferred first.
    pub const ALL: [Self; 8] = [
        Self::Flex,
        Self::Cuda,
        Self::Rocm,
        Self::Metal,
        Self::Vulkan,
        Self::Wgpu,
        Self::Tch,
        Self::NdArray,
    ];

    /// The name used in cargo features and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::NdArray => "ndarray",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
            Self::Tch => "tch",
        }
    }

    /// Whether this build contains the backend.
    pub fn is_compiled_in(self) -> bool {
        match self {
            Self::Flex => cfg!(feature = "flex"),
            Self::NdArray => cfg!(feature = "ndarray"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Metal => cfg!(feature = "metal"),
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Rocm => cfg!(feature = "rocm"),
            Self::Tch => cfg!(feature = "tch"),
        }
    }

    /// The backends of this build, the preferred first.
    pub fn compiled_in() -> Vec<Self> {
        Self::ALL
            .into_iter()
            .filter(|kind| kind.is_compiled_in())
            .collect()
    }
}

/// Whether Flex, which runs on the CPU, computes the tensors of a device: then the CPU kernels may be used.
pub fn is_flex(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    let is_flex = device.clone().inner() == Device::flex();
    #[cfg(not(feature = "flex"))]
    let is_flex = {
        let _ = device;
        false
    };
    is_flex
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BackendKind {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| DeviceError::Unknown {
                name: name.to_owned(),
                available: available(),
            })
    }
}

/// A device as a user writes it: `flex`, `cuda`, `cuda:1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceSpec {
    /// The backend.
    pub backend: BackendKind,
    /// Which of the backend's devices, counted from 0; CPU backends have only 0.
    pub index: usize,
}

impl DeviceSpec {
    /// The preferred device of this build.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoBackend`] when the crate was built without any backend feature.
    pub fn preferred() -> Result<Self, DeviceError> {
        BackendKind::compiled_in()
            .first()
            .map(|&backend| Self { backend, index: 0 })
            .ok_or(DeviceError::NoBackend)
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            0 => write!(f, "{}", self.backend),
            index => write!(f, "{}:{index}", self.backend),
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, index) = match text.split_once(':') {
            None => (text, 0),
            Some((name, index)) => {
                let index = index.parse().map_err(|_| DeviceError::BadIndex {
                    index: index.to_owned(),
                })?;
                (name, index)
            }
        };
        Ok(Self {
            backend: name.parse()?,
            index,
        })
    }
}

/// Opens a device.
///
/// # Errors
///
/// [`DeviceError::NotCompiled`] when this build lacks the backend, [`DeviceError::NoSuchIndex`]
/// when a CPU backend has no device of that index.
pub fn open(spec: DeviceSpec) -> Result<Device, DeviceError> {
    let is_cpu = matches!(spec.backend, BackendKind::Flex | BackendKind::NdArray);
    if is_cpu && spec.index != 0 {
        return Err(DeviceError::NoSuchIndex {
            backend: spec.backend,
            index: spec.index,
        });
    }
    match spec.backend {
        #[cfg(feature = "flex")]
        BackendKind::Flex => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        BackendKind::NdArray => Ok(Device::ndarray()),
        #[cfg(feature = "wgpu")]
        BackendKind::Wgpu => Ok(Device::wgpu(gpu_kind(spec.index))),
        #[cfg(feature = "vulkan")]
        BackendKind::Vulkan => Ok(Device::vulkan(gpu_kind(spec.index))),
        #[cfg(feature = "metal")]
        BackendKind::Metal => Ok(Device::metal(gpu_kind(spec.index))),
        #[cfg(feature = "cuda")]
        BackendKind::Cuda => Ok(Device::cuda(spec.index)),
        #[cfg(feature = "rocm")]
        BackendKind::Rocm => Ok(Device::rocm(spec.index)),
        #[cfg(feature = "tch")]
        BackendKind::Tch if spec.index == 0 => Ok(Device::libtorch()),
        #[cfg(feature = "tch")]
        BackendKind::Tch => Ok(Device::libtorch_cuda(spec.index - 1)),
        backend => Err(DeviceError::NotCompiled {
            backend,
            available: available(),
        }),
    }
}

/// `wgpu` gives adapters an index only if it is not the default one.
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
fn gpu_kind(index: usize) -> burn::tensor::DeviceKind {
    use burn::tensor::DeviceKind;
    match index {
        0 => DeviceKind::DefaultDevice,
        index => DeviceKind::DiscreteGpu(index - 1),
    }
}

fn available() -> String {
    let names: Vec<_> = BackendKind::compiled_in()
        .iter()
        .map(|kind| kind.name())
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

/// An error of parsing or opening a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Not the name of a backend.
    #[error("unknown device `{name}`; this build has: {available}")]
    Unknown {
        /// The requested one.
        name: String,
        /// Backends of this build, comma-separated.
        available: String,
    },
    /// The backend exists, but this build was made without its feature.
    #[error("device `{backend}` is not compiled in; this build has: {available}")]
    NotCompiled {
        /// The requested one.
        backend: BackendKind,
        /// Backends of this build, comma-separated.
        available: String,
    },
    /// The part after the colon is not a whole number.
    #[error("device index `{index}` is not a number")]
    BadIndex {
        /// The index found.
        index: String,
    },
    /// The backend has no device of this index.
    #[error("device `{backend}` has no index {index}")]
    NoSuchIndex {
        /// The backend.
        backend: BackendKind,
        /// The requested one.
        index: usize,
    },
    /// The crate was built without any backend.
    #[error("this build has no backend at all; enable a feature such as `flex`")]
    NoBackend,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_reads_back_what_it_prints() {
        for text in ["flex", "cuda", "cuda:1", "wgpu:3"] {
            assert_eq!(text.parse::<DeviceSpec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_unknown_device_lists_what_is_compiled_in() {
        let error = "abacus".parse::<DeviceSpec>().unwrap_err();
        assert!(error.to_string().contains("flex"), "{error}");
        assert!("cuda:x".parse::<DeviceSpec>().is_err());
    }

    #[test]
    fn a_missing_backend_is_refused_by_name() {
        let backend = BackendKind::ALL
            .into_iter()
            .find(|kind| !kind.is_compiled_in())
            .expect("no build has every backend");
        let error = open(DeviceSpec { backend, index: 0 }).unwrap_err();
        assert!(
            matches!(error, DeviceError::NotCompiled { backend: named, .. } if named == backend),
            "{error}"
        );
    }

    #[test]
    fn a_cpu_backend_has_one_device() {
        assert!(open("flex".parse().unwrap()).is_ok());
        assert!(matches!(
            open("flex:1".parse().unwrap()),
            Err(DeviceError::NoSuchIndex { .. })
        ));
    }
}
