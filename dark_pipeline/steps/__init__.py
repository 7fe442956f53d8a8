"""Steps of the dark pipeline, in the order of the data.

===================  =====================================  =======================  =====================================
step                 reads                                  computes                 writes (below the output folder)
===================  =====================================  =======================  =====================================
step1_select_frames  dark and bias frames below --basepath  groups by T and t        nothing
step2_bias           --bias-model, else the bias frames     bias(T) with errors      bias_used/
step3_dark_maps      the frames of step 1, bias_used/       screen, combine, hot     dark_masks_by_temp/, hot_pixels.fits
step4_fit_1d         dark-current maps                      A exp(B dT) each t       dark_model/exp_*/
step5_fit_2d         dark-current maps                      A t^gamma exp(B dT)      dark_model_2d/
step6_synthesize     the models                             dark at any T, t         exp_*/synthetic_*, synthetic_2d_*
step7_evaluate       maps, models                           residuals, left out      evaluation_*.csv, pictures
step8_report         run.json and the products above        pictures                 figures/, report.html
===================  =====================================  =======================  =====================================

Each step is ``run(config, context)``; from step 3 on they meet through FITS files only, so that any mode can start
at any step in a fresh process.
"""
