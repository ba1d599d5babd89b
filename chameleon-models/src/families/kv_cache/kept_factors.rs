//! The changes of the layers for the tokens of a pass, kept for the next pass over the same groups: decode steps are over
//! the same rows many times.

use std::sync::Arc;

use chameleon_hypernet::{GroupLayers, LayerFactors};

/// The factors of the last pass, and the rows for which they were laid out.
#[derive(Debug, Default)]
pub(super) struct KeptFactors {
    rows: Vec<Option<GroupLayers>>,
    factors: Arc<LayerFactors>,
}

impl KeptFactors {
    /// The factors for tokens of these groups, one after the other.
    pub(super) fn for_rows(&mut self, rows: &[Option<&GroupLayers>]) -> Arc<LayerFactors> {
        let are_same = rows.len() == self.rows.len()
            && rows.iter().zip(&self.rows).all(|pair| match pair {
                (None, None) => true,
                (Some(row), Some(kept)) => row.is_same(kept),
                _ => false,
            });
        if !are_same {
            self.rows = rows.iter().map(|row| row.cloned()).collect();
            self.factors = Arc::new(LayerFactors::for_rows(rows));
        }
        Arc::clone(&self.factors)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};
    use chameleon_core::RunSeed;
    use chameleon_hypernet::{AdaptedLayersConfig, LayerCores, LayerModule};

    use super::*;

    #[test]
    fn factors_are_laid_out_anew_only_for_other_rows() {
        let config = AdaptedLayersConfig {
            modules: vec![LayerModule {
                layer_idx: 0,
                path: "up".to_owned(),
                in_size: 4,
                out_size: 5,
            }],
            rank: 2,
            scale: 1.0,
            cores: LayerCores::Generated { num_features: 3 },
        };
        let layers = config.init(RunSeed(1), &Device::flex()).shared();
        let groups = layers.groups(Tensor::ones([2, 3], &Device::flex()));
        let mut kept = KeptFactors::default();
        let first = kept.for_rows(&[Some(&groups[0]), None]);
        assert_eq!(first.changes(0, "up").len(), 1);
        assert!(Arc::ptr_eq(
            &first,
            &kept.for_rows(&[Some(&groups[0].clone()), None])
        ));
        for others in [
            vec![Some(&groups[1]), None],
            vec![None, Some(&groups[0])],
            vec![Some(&groups[0])],
        ] {
            assert!(!Arc::ptr_eq(&first, &kept.for_rows(&others)));
        }
        assert_eq!(kept.for_rows(&[]).first_layer(), None);
    }
}
