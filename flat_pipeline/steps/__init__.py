"""Steps of the flat pipeline, in the order of the data.

===================  ======================================  ========================  ==============================
step                 reads                                   computes                  writes (below the output folder)
===================  ======================================  ========================  ==============================
step1_select_frames  flats, darks, biases below --basepath   groups by filter, T, t    nothing
step2_dark           models, else the darks and biases       bias and dark at T, t     dark_sources.csv, chosen darks
step3_levels         a sample of the frames' rows            screen, levels, gain      nothing
step4_reduce         the frames                              less bias and dark        flat_reduced/, dark_used/
step5_normalize      the frames, or flat_reduced/            divided by their level    flat_normalized/
step6_combine        frames, or flat_normalized/ and others  mean, scatter, noise      nothing (a temporary spool)
step7_vignetting     the combined flats, or the masters      illumination              vignetting/, corrected frames
step8_masters        the combined flats, vignetting/         defects, PRNU, errors     master_flat/, sky_median/
step9_fit_model      masters                                 A + B dT + C dt           flat_model_fits/
step10_evaluate      masters, model                          residuals, left out       evaluation/
step11_report        run.json and the products above         pictures                  figures/, report.html
step12_characterize  biases, darks, flats of step 1          gain, noise, linearity    detector.json, detector_sheet.html
===================  ======================================  ========================  ==============================

Each step is ``run(config, context)``.  Steps 6 to 8 of one run share the combined flats; all others meet through files that
run.json lists, so that every mode can start in a fresh process.
"""
